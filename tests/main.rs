//! The one integration binary, by what is proven.

mod contract;
