"""What can be touched? Views for notebooks, each complete in a module of its own; lessons do not depend on them."""
