//! Takes a client call to a stored, held, queued generation.
