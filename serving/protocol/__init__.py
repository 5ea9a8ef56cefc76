"""What can be asked and how it is answered, as types and on the wire; nothing here runs or stores anything."""
