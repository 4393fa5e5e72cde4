//! How this crate reaches the tables that it makes.

pub use umbra_arch::paging::PAGE_BYTES;

/// 64-bit words of a table.
pub const WORDS: usize = 512;

/// Pages of Umbra's own that units read their tables from, by machine address.
pub trait Tables {
    /// A page that is used for nothing else, filled with zeros; `None` when
    /// there is none left.
    fn take(&mut self) -> Option<u64>;

    /// Reads word `index` (below [`WORDS`]) of the page at `page_hpa`.
    fn read(&self, page_hpa: u64, index: usize) -> u64;

    /// Writes word `index` (below [`WORDS`]) of the page at `page_hpa`: one
    /// store of 64 bits, visible in order with the others.
    fn write(&mut self, page_hpa: u64, index: usize, value: u64);

    /// Writes the page's lines back to memory, for units whose walks do not
    /// look into the caches (`ECAP_REG`.C is 0).
    fn write_back(&mut self, page_hpa: u64);
}
