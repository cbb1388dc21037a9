//! Who may connect, and how often (A4).
