"""Models of the Hugging Face hub. Read `download` first, then `transfer` and `messages`."""
