"""Where the gateway may listen: beyond this machine only with keys, and with TLS or a proxy that has it."""

from serving.gateway.access.hosts import is_loopback


def check_binding(host: str, *, keys: int, tls: bool, behind_proxy: bool) -> None:
    """Raises ValueError, with what to do, if a gateway must not listen at `host` with so many keys."""
    if is_loopback(host):
        return
    if not keys:
        raise ValueError(
            f"--host {host} lets other machines in, and there is no key yet that they must have: make one with "
            "`simclr keys add NAME --scope read`, or stay at --host 127.0.0.1"
        )
    if not tls and not behind_proxy:
        raise ValueError(
            f"--host {host} would send keys and images unencrypted: give --tls-cert and --tls-key, or --behind-proxy "
            "if all requests come through a proxy that has TLS"
        )
