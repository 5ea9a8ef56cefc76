"""Self-signed certificates for tests."""

import subprocess
from pathlib import Path


def make(folder: Path, name: str) -> tuple[str, str]:
    """A self-signed certificate and its key."""
    chain, key = folder / f"{name}.pem", folder / f"{name}.key"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run(["openssl", "req", "-x509", *kind, "-keyout", key, "-out", chain], check=True, capture_output=True)
    return str(chain), str(key)
