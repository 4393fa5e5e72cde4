//! What is to be seen of hidden memory: nothing.
//!
//! Every page of it reads as one and the same page (under several hypervisors: one for each), which holds
//! what L1 wrote there last, and nothing that a hypervisor would have.

use core::ops::Range;
use rt::report;

use rt::vmx::ept;
use rt::vmx::insn::write;
use rt::vmx::vm::layout;
use umbra_vmcs::field;

use crate::lab::{Lab, reason};
use crate::place::{Kind, Place};

code64! {
    // RSI: the first page, RBX: how many. RAX: pages that differ from the first, RDX: a word that is
    // not zero.
    fn compare_code =
        "xor eax, eax",
        "mov r8, rsi",
        "2: mov rdi, r8",
        "mov rsi, r9",
        "mov ecx, 512",
        "repe cmpsq",
        "je 3f",
        "inc eax",
        "3: add r8, 0x1000",
        "dec rbx",
        "jnz 2b",
        "vmcall";
}

/// Where L2 sees hidden memory, by 2 MiB pages of its own tables and of its EPT.
const SEEN_AT: u64 = 0x4000_0000;
const BLOCK: u64 = 2 << 20;

/// Hypervisors on one another each hide a block; more than so many are none.
const MAX_RUNS: usize = 4;

/// Runs the group.
pub fn run(lab: &mut Lab) {
    let Some(hidden) = lab.hidden.clone() else {
        return;
    };
    let is_empty = pages(&hidden).all(|place| (0..512).all(|word| place.peek(word * 8) == 0));
    report::check(format_args!("hidden memory is empty at first"), is_empty);
    let mut start = hidden.start;
    let mut runs = 0;
    while start < hidden.end && runs < MAX_RUNS {
        let run = start..end_of_run(start, hidden.end);
        one_page(lab, &run);
        start = run.end;
        runs += 1;
    }
    let is_all = start == hidden.end;
    report::check(format_args!("hidden memory is {runs} pages"), is_all);
    has_no_text(pages(&hidden));
}

fn pages(range: &Range<u64>) -> impl Iterator<Item = Place> + Clone + use<> {
    (range.start..range.end).step_by(4096).map(page)
}

/// Where the pages end that are the same page as the first.
fn end_of_run(start: u64, end: u64) -> u64 {
    const MARK: u64 = 0x6d61_726b;
    page(start).poke(0x78, MARK + start);
    let end = pages(&(start..end))
        .find(|place| place.peek(0x78) != MARK + start)
        .map_or(end, |place| place.address);
    page(start).poke(0x78, 0);
    end
}

/// Whether hidden memory, if there is any, still is one page for each hypervisor.
pub fn is_one_page(hidden: &Range<u64>) -> bool {
    let mut start = hidden.start;
    for _ in 0..MAX_RUNS {
        if start < hidden.end {
            start = end_of_run(start, hidden.end);
        }
    }
    start == hidden.end
}

/// All pages of a run are one, for L1 and for L2.
fn one_page(lab: &mut Lab, run: &Range<u64>) {
    let first = page(run.start);
    same_for_l1(pages(run));
    for (number, place) in pages(run).enumerate().filter(|(n, _)| n % 397 == 0) {
        let value = 0x5eed_0000_0000 + number as u64;
        let at = 8 * (number as u64 % 512);
        place.poke(at, value);
        let is_same = pages(run).all(|other| other.peek(at) == value);
        report::check(format_args!("page {number} is every page"), is_same);
    }
    same_for_l1(pages(run));
    // L2 uses large pages.
    let is_whole = run.start.is_multiple_of(BLOCK) && run.end.is_multiple_of(BLOCK);
    report::check(format_args!("whole blocks of 2 MiB"), is_whole);
    if is_whole {
        same_for_l2(lab, run.start, run.end);
    }
    first.fill(0);
}

/// A page of hidden memory.
fn page(address: u64) -> Place {
    Place {
        name: "hidden",
        address,
        kind: Kind::Hidden,
    }
}

fn same_for_l1(pages: impl Iterator<Item = Place> + Clone) {
    let Some(first) = pages.clone().next() else {
        return;
    };
    let mut content = [0; 512];
    for (word, at) in content.iter_mut().zip((0..).step_by(8)) {
        *word = first.peek(at);
    }
    let is_same = |place: &Place| (0..512).all(|n| place.peek(8 * n as u64) == content[n]);
    let other = pages.clone().filter(|place| !is_same(place)).count();
    report::check(format_args!("L1 sees {other} other pages"), other == 0);
}

/// L2 compares every page with the first, through large pages.
fn same_for_l2(lab: &mut Lab, start: u64, end: u64) {
    lab.prepare(&compare_code());
    for (number, block) in (start..end).step_by(BLOCK as usize).enumerate() {
        let number = number as u64 + 1;
        let gpa = SEEN_AT + number * BLOCK;
        lab.vm
            .ept()
            .set_entry(gpa, 2, block | ept::ALL | ept::WRITE_BACK | ept::LARGE);
        // Present, writable, user, large.
        lab.vm
            .memory
            .write(layout::TABLES + 0x2000 + 8 * number, gpa | 0x87);
    }
    lab.flush();
    write(field::VMX_PREEMPTION_TIMER_VALUE, 0xffff_ffff);
    lab.vm.registers.rsi = BLOCK;
    lab.vm.registers.r9 = BLOCK;
    lab.vm.registers.rbx = (end - start) / 4096;
    lab.expect(format_args!("L2 looks at hidden memory"), &[reason::VMCALL]);
    let other = lab.vm.registers.rax;
    report::check(format_args!("L2 sees {other} other pages"), other == 0);
    // L2 writes to it through the last block; L1 sees it in the first.
    let at = layout::CODE;
    // MOV [RDI], EAX; VMCALL.
    lab.vm
        .memory
        .write_bytes(at, &[0x89, 0x07, 0x0f, 0x01, 0xc1]);
    write(field::GUEST_RIP, at);
    lab.vm.registers.rdi = BLOCK + (end - start) - 4096 + 0x80;
    lab.vm.registers.rax = 0x600d_c0de;
    lab.expect(format_args!("L2 writes hidden memory"), &[reason::VMCALL]);
    let seen = page(start).peek(0x80) as u32;
    report::check(format_args!("what L2 wrote is there"), seen == 0x600d_c0de);
}

/// Nothing there spells a name.
fn has_no_text(pages: impl Iterator<Item = Place>) {
    let mut found = 0;
    for place in pages {
        let mut window = 0u64;
        for at in (0..4096).step_by(8) {
            let word = place.peek(at);
            if word == 0 {
                window = 0;
                continue;
            }
            for byte in word.to_le_bytes() {
                window = window << 8 | u64::from(byte.to_ascii_lowercase());
                found += u32::from(window & 0xff_ffff_ffff == u64::from_be_bytes(*b"\0\0\0umbra"));
            }
        }
    }
    report::check(format_args!("the name is there {found} times"), found == 0);
}
