"""Pages for people: server-rendered, behind a session cookie, under `/ui`."""
