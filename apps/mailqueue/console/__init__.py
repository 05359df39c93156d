"""What the administrator's pages of both frameworks are made of: their texts, parts and contents."""
