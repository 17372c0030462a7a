//! Landing: a page becomes rows, in one transaction with its cursor.
