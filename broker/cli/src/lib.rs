//! The client side of the command line.
