"""What `fit` is fed, seen on its way there and delivered unchanged."""
