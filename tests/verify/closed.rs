//! A closed directory.
