//! EPT of L2 that leads to every place, at every level: as a table and as a page.

use rt::report;
use rt::vmx::ept;
use rt::vmx::insn::write;
use rt::vmx::vm::{Code, Outcome, layout};
use rt::{cpu, vmx::insn};
use umbra_vmcs::field;

use crate::fields::point;
use crate::lab::{Lab, TARGET, is_exit, leaf, reason, table};
use crate::place::{Kind, Place};
use rt::vmx::vm::Mode;

code64! {
    fn load_code = "mov eax, [rdi]", "vmcall";
    fn store_code = "mov [rdi], eax", "vmcall";
    fn modify_code = "lock or dword ptr [rdi], 0", "vmcall";
    fn wide_code = "mov rax, [rdi]", "mov [rdi], rax", "vmcall";
    fn string_code = "mov rsi, rdi", "mov ecx, 1000", "rep lodsd", "vmcall";
    fn jump_code = "jmp rdi";
    // Takes the mapping of its own next page away, in the tables that translate it.
    fn rewrite_code = "mov qword ptr [0x100040], 0", "mov eax, [0x9000]", "vmcall", "mov eax, [0x9000]", "vmcall";
}

/// Guest-physical addresses whose entry of level 1, 2, 3, 4 translates nothing else.
fn alone(level: u32) -> u64 {
    match level {
        1 => TARGET,
        2 => 2 << 20,
        3 => 1 << 30,
        _ => 1 << 39,
    }
}

/// Runs the group.
pub fn run(lab: &mut Lab) {
    for place in lab.places() {
        as_table(lab, place);
        as_large_page(lab, place);
        touches(lab, place);
        if place.is_memory() {
            self_referencing(lab, place);
            all_entries(lab, place);
        }
    }
    rewritten_by_l2(lab);
    own_tables(lab);
}

/// Points L2's [`TARGET`] at a guest-physical address and loads code that gets it in RDI.
fn aim(lab: &mut Lab, code: &Code, gpa: u64) {
    lab.vm.load(code);
    point(lab, gpa, Mode::Long);
    lab.vm.registers.rdi = TARGET + 0x20;
}

fn as_table(lab: &mut Lab, place: Place) {
    let fills: &[u64] = if place.is_memory() {
        &[0, u64::MAX, 7, 0x37, 1, 2, 0x87, 0x0008_0000_0000_0037]
    } else {
        &[0]
    };
    for value in fills {
        if place.is_memory() {
            place.fill(*value);
        }
        for level in 2..=4 {
            lab.prepare(&load_code());
            let gpa = alone(level);
            if gpa >> cpu::maxphyaddr() != 0 {
                continue;
            }
            lab.vm.ept().set_entry(gpa, level, table(place.address));
            lab.flush();
            aim(lab, &load_code(), gpa);
            let what = format_args!("level {level} at {} with {value:#x}", place.name);
            lab.run(what);
            lab.vm.ept().set_entry(gpa, level, 0);
        }
        lab.prepare(&load_code());
        write(field::EPT_POINTER, place.address | 0x1e);
        lab.flush();
        lab.run(format_args!("root at {} with {value:#x}", place.name));
    }
}

/// A leaf of 2 MiB or 1 GiB that covers the place. L2 reads through it alone: it covers more.
fn as_large_page(lab: &mut Lab, place: Place) {
    // SDM "VPID and EPT Capabilities (IA32_VMX_EPT_VPID_CAP)": bits 16 and 17.
    for (level, bits, offered) in [(2, 21, 1u64 << 16), (3, 30, 1 << 17)] {
        lab.prepare(&load_code());
        let gpa = alone(level);
        let base = place.address >> bits << bits;
        lab.vm.ept().set_entry(gpa, level, leaf(base) | ept::LARGE);
        lab.flush();
        aim(lab, &load_code(), gpa + (place.address - base));
        let outcome = lab.run(format_args!("large page {level} over {}", place.name));
        if place.is_readable() && lab.vmx.caps.ept_vpid & offered != 0 {
            let seen = lab.vm.registers.rax as u32;
            let is_right = is_exit(&outcome, reason::VMCALL) && seen == place.peek(0x20) as u32;
            report::check(format_args!("read {seen:#x} at {}", place.name), is_right);
        }
        lab.vm.ept().set_entry(gpa, level, 0);
    }
}

/// L2 reads, writes and fetches the place through a small leaf, with every memory type.
fn touches(lab: &mut Lab, place: Place) {
    let name = place.name;
    for memory_type in [0u64, 1, 4, 5, 6, 2, 3, 7] {
        let entry = place.address | ept::ALL | memory_type << 3;
        let codes: [(&str, Code); 5] = [
            ("read", load_code()),
            ("write", store_code()),
            ("modify", modify_code()),
            ("wide", wide_code()),
            ("string", string_code()),
        ];
        for (what, code) in codes {
            // What L2 writes into its own hypervisor's VMX structures is left open by the SDM.
            if place.kind == Kind::Own && !matches!(what, "read" | "string") && lab.hidden.is_none()
            {
                continue;
            }
            if place.is_memory() {
                place.fill(0x1357_9bdf_0246_8ace);
            }
            lab.prepare(&code);
            aim(lab, &code, TARGET);
            lab.vm.ept().set_entry(TARGET, 1, entry);
            lab.flush();
            lab.vm.registers.rax = 0x0bad_cafe;
            let id = format_args!("{what} {name} type {memory_type}");
            let outcome = lab.run(id);
            if !place.is_memory() {
                continue;
            }
            let is_legal = matches!(memory_type, 0 | 1 | 4..=6);
            let wanted = match (is_legal, what) {
                (true, "write") => 0x0bad_cafe,
                _ => 0x0246_8ace,
            };
            let found = place.peek(0x20) as u32;
            let ended = if is_legal {
                reason::VMCALL
            } else {
                reason::EPT_MISCONFIGURATION
            };
            let is_right = found == wanted && is_exit(&outcome, ended);
            report::check(
                format_args!("{what} {name}: {found:#x}, {outcome}"),
                is_right,
            );
        }
    }
    if place.is_readable() {
        fetch(lab, place);
    }
}

fn fetch(lab: &mut Lab, place: Place) {
    if place.is_memory() {
        place.fill(0xcccc_cccc_cccc_cccc);
        // VMCALL.
        place.poke32(0x20, 0xccc1_010f);
    }
    lab.prepare(&jump_code());
    aim(lab, &jump_code(), TARGET);
    lab.vm.ept().set_entry(TARGET, 1, leaf(place.address));
    lab.flush();
    let what = format_args!("fetch {}", place.name);
    if place.is_memory() {
        lab.expect(what, &[reason::VMCALL]);
    } else {
        lab.run(what);
    }
}

/// One page that is root and table of every level.
fn self_referencing(lab: &mut Lab, place: Place) {
    lab.prepare(&load_code());
    let memory = lab.vm.memory.address();
    place.fill(0);
    place.poke(0, table(place.address));
    for page in 1..layout::BYTES / 4096 {
        place.poke(8 * page, leaf(memory + page * 4096));
    }
    place.poke(8 * (TARGET >> 12), leaf(place.address));
    write(field::EPT_POINTER, place.address | 0x1e);
    lab.flush();
    aim(lab, &load_code(), TARGET);
    lab.vm.registers.rdi = TARGET;
    let what = format_args!("one page for all levels, {}", place.name);
    lab.expect(what, &[reason::VMCALL]);
    let seen = lab.vm.registers.rax;
    let is_right = seen == table(place.address) & 0xffff_ffff;
    report::check(format_args!("L2 reads its EPT: {seen:#x}"), is_right);
    // L2 takes a mapping away through that same page; after INVEPT it is gone.
    write(field::EPT_POINTER, place.address | 0x1e);
    lab.vm
        .memory
        .write_bytes(layout::CODE, code_bytes(&rewrite_code()));
    place.poke(8 * 9, leaf(memory + layout::DATA));
    place.poke(0x40, leaf(memory + layout::CODE));
    // The entry that L2 clears is that of page 9.
    let clear_page_9 = clear_at(TARGET + 8 * 9);
    lab.vm.memory.write_bytes(layout::CODE, &clear_page_9);
    lab.vm.jump(0);
    lab.flush();
    let what = format_args!("L2 rewrites its EPT, {}", place.name);
    lab.expect(what, &[reason::VMCALL, reason::EPT_VIOLATION]);
    report::check(format_args!("the entry is gone"), place.peek(8 * 9) == 0);
    lab.flush();
    lab.vm.memory.write_bytes(layout::CODE, &READ_DATA);
    lab.vm.jump(0);
    let what = format_args!("after INVEPT, {}", place.name);
    lab.expect(what, &[reason::EPT_VIOLATION]);
}

/// MOV EAX, [9000H]; VMCALL.
const READ_DATA: [u8; 10] = [0x8b, 0x04, 0x25, 0x00, 0x90, 0, 0, 0x0f, 0x01, 0xc1];

/// MOV qword [address], 0; VMCALL.
fn clear_at(address: u64) -> [u8; 15] {
    let [a, b, c, d] = (address as u32).to_le_bytes();
    [
        0x48, 0xc7, 0x04, 0x25, a, b, c, d, 0, 0, 0, 0, 0x0f, 0x01, 0xc1,
    ]
}

fn code_bytes(code: &Code) -> &'static [u8] {
    code.bytes(Mode::Long)
}

/// Each bit of an entry that L2 then uses, in a table that lies at the place.
fn all_entries(lab: &mut Lab, place: Place) {
    let good = leaf(lab.vm.msr_bitmap.address());
    for bit in 0..64 {
        place.fill(0);
        place.poke(0, good ^ 1 << bit);
        lab.prepare(&load_code());
        let gpa = alone(2);
        lab.vm.ept().set_entry(gpa, 2, table(place.address));
        lab.flush();
        aim(lab, &load_code(), gpa);
        let what = format_args!("bit {bit} of an entry at {}", place.name);
        lab.run(what);
        lab.vm.ept().set_entry(gpa, 2, 0);
    }
}

/// L2 writes the tables that translate it, at every level, with every place as the new target.
fn rewritten_by_l2(lab: &mut Lab) {
    for level in 1..=4 {
        for place in lab.places() {
            let gpa = alone(level);
            if gpa >> cpu::maxphyaddr() != 0 {
                continue;
            }
            lab.prepare(&store_code());
            let entry_at = lab.vm.ept().entry_address(gpa, level);
            let entry = if level == 1 {
                leaf(place.address)
            } else {
                table(place.address)
            };
            // RDI: the entry in L2's view; RAX: its new value; then the read through it.
            lab.vm
                .ept()
                .set_entry(TARGET + 0x1000, 1, leaf(entry_at & !0xfff));
            lab.flush();
            point(lab, gpa, Mode::Long);
            let mut code = [0u8; 32];
            // MOV [RDI], RAX; MOV EAX, [RSI]; VMCALL.
            let bytes = [0x48, 0x89, 0x07, 0x8b, 0x06, 0x0f, 0x01, 0xc1];
            code[..bytes.len()].copy_from_slice(&bytes);
            lab.vm.memory.write_bytes(layout::CODE, &code);
            lab.vm.registers.rdi = TARGET + 0x1000 + (entry_at & 0xfff);
            lab.vm.registers.rsi = TARGET + 0x20;
            lab.vm.registers.rax = entry;
            lab.run(format_args!("L2 sets level {level} to {}", place.name));
            lab.vm.ept().set_entry(gpa, level, 0);
            lab.vm.ept().set_entry(TARGET + 0x1000, 1, 0);
        }
    }
}

/// L2 gets L1's paging structures, descriptor tables and VMX regions to read, and a page of EPT to
/// write that is being used.
fn own_tables(lab: &mut Lab) {
    for address in [
        cpu::cr3(),
        rt::gdt::base() & !0xfff,
        rt::trap::base() & !0xfff,
    ] {
        lab.prepare(&string_code());
        lab.vm.ept().set_entry(TARGET, 1, leaf(address & !0xfff));
        lab.flush();
        aim(lab, &string_code(), TARGET);
        lab.vm.registers.rdi = TARGET;
        let outcome = lab.vm.run();
        report::check(
            format_args!("L2 reads L1's tables: {outcome}"),
            matches!(outcome, Outcome::Exit(exit) if exit.basic() == reason::VMCALL),
        );
    }
    let _ = insn::invept(1, [lab.vm.ept().pointer(), 0]);
}
