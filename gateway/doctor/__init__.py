"""``gateway doctor``: checks everything a field engineer would, and changes nothing unless asked to."""
