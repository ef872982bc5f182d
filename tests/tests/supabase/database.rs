//! The PostgreSQL that comes with a project.
