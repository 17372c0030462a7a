//! Capture: every committed row change, in commit order.
