"""The commands of `gatewatch`: their options in one module, and what each does in a module of its own."""
