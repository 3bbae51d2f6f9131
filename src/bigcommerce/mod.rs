//! bigcommerce.
