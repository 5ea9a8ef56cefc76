"""How requests come in and answers go out: multipart, JSON, raw bytes, npy; nothing here runs or stores anything."""
