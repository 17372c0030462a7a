//! The built-in API server: speaks the API of randomuser.me, data made from a seed.
