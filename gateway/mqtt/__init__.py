"""The broker's side: the link, what comes in, what goes out, and the comparison of both ends."""
