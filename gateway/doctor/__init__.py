"""``gateway doctor``: looks at everything a field engineer would, and changes nothing unless told to."""
