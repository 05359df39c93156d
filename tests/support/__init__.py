"""What the tests stand on: a scripted SMTP server, certificates, the py4web scaffold, services."""
