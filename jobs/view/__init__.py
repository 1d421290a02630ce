"""The local page: `gatewatch view` shows the runs of a store in a browser while they go on. It only reads the store,
but for the scores that it makes beside."""
