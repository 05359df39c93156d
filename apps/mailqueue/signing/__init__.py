"""What is done to a message when it leaves: S/MIME, OpenPGP, and DKIM over all of it."""
