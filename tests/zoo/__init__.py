"""Models whose forward does what a forward should not: a training of each is the same with a monitor and without."""
