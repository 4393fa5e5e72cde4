//! Moving to the top of RAM, at the same linear addresses.
//!
//! The image, its data and the live boot stack are copied as they are; then
//! CR3 changes, and the next instruction comes from the new place.

use super::plan::{Image, Plan, high_page_size};
use crate::mem::paging::{Access, AddressSpace, PageSize};
use crate::mem::{
    LOW_BYTES, Layout, PAGE_BYTES, PHYSMAP, PagePool, Registers, pointer, set_layout,
};
use crate::platform::iommu;
use core::arch::asm;
use umbra_arch::Linear;

/// Moves the image to the plan's block. Gives what is left of the block, and
/// the tables in use from now on.
pub fn move_image(plan: &Plan) -> (PagePool, AddressSpace) {
    let image = Image::own();
    let block = plan.block;
    // SAFETY: `plan` found the block free: usable RAM below 4 GiB, where the
    // early tables map it, and nothing of the boot loader's or ours is in it.
    let mut pool = unsafe { PagePool::new(block.start, block.start + block.len) };
    let new_place = pool.take(image.bytes() / PAGE_BYTES);
    let void_page = pool.take(1);
    let mut space = AddressSpace::new(&mut pool);
    let low = (0, LOW_BYTES, PageSize::Medium);
    let high = (LOW_BYTES, plan.mapped_bytes - LOW_BYTES, high_page_size());
    for (start, bytes, size) in [low, high] {
        let linear = Linear::new(PHYSMAP + start);
        // SAFETY: no Rust object lies at `PHYSMAP`: what is seen there is reached by raw
        // pointers, whose users say who owns it.
        unsafe { space.map(&mut pool, linear, start, bytes, size, Access::Write) };
    }
    for (start, end, access) in [
        (image.start, image.rodata, Access::Execute),
        (image.rodata, image.data, Access::Read),
        (image.data, image.end, Access::Write),
    ] {
        let physical = new_place.base().raw() + (start - image.start);
        let (linear, bytes) = (Linear::new(start), end - start);
        // SAFETY: the image at its own addresses, where it goes on once it is copied; the
        // pages were taken for it alone.
        unsafe { space.map(&mut pool, linear, physical, bytes, PageSize::Small, access) };
    }
    // SAFETY: the new tables map the image, the stack inside it and the
    // physical memory at the same linear addresses, and the destination is
    // `new_place`.
    unsafe { copy_and_switch(&image, new_place.base().raw(), space.cr3()) };
    let registers = Registers::new(iommu::registers());
    set_layout(Layout {
        hidden_start: block.start,
        hidden_bytes: block.len,
        plain_bytes: registers
            .first()
            .map_or(block.start, |first| first.min(block.start)),
        registers,
        mapped_bytes: plan.mapped_bytes,
        void_page: void_page.base(),
    });
    (pool, space)
}

/// Copies the image and loads CR3 with nothing in between that writes to
/// memory: the stack that the next instruction uses is the copy.
///
/// # Safety
/// `destination` is the physical address of a free run as long as the image,
/// mapped at PHYSMAP, and `cr3` the root of tables that map everything in use
/// as it is now, with the image at `destination`.
unsafe fn copy_and_switch(image: &Image, destination: u64, cr3: u64) {
    // SAFETY: the caller's promise; registers only, no stack.
    unsafe {
        asm!(
            "rep movsq",
            "mov cr3, {cr3}",
            cr3 = in(reg) cr3,
            inout("rdi") pointer(destination) => _,
            inout("rsi") image.start => _,
            inout("rcx") image.bytes() / 8 => _,
            options(nostack, preserves_flags),
        );
    }
}
