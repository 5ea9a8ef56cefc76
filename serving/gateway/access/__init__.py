"""Who may ask the gateway for what: keys, hosts, origins and rates; nothing here opens a socket."""
