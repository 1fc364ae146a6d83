//! What a user knows: containers and images, their state on disk, garbage collection.
