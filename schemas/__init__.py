"""The words on the wire: what the gateway, the workers and the client say to one another."""
