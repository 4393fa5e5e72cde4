//! A machine of arrays: VMCSs are field values, memory is bytes.
#![allow(dead_code, unused_imports)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use umbra_arch::hpa::{OwnEntry, TablePage, TablePages};
use umbra_arch::{Gpa1, Hpa, Linear};
use umbra_ept::addr::Level;
use umbra_ept::ept02::Config;
use umbra_ept::eptp::OwnEptp;
use umbra_ept::mem::{L1Memory, Leaf01, TableMemory};
use umbra_ept::memtype::{MemType, Merge};
use umbra_ept::rights::Rights;
use umbra_nested::slots::{Slot, Slots};
use umbra_nested::{Current, Done, HostImage, L2Done, Lent, MsrFault, Nested, SlotId, offer};
pub use umbra_nested::{Memory, Msrs, Registers, Translations, VmcsAccess};
use umbra_vmcs::caps::Allowed;
use umbra_vmcs::exit::{ExitReason, Reason};
use umbra_vmcs::field::{self, Area, Field, FieldSet, SegmentFields, flow};
use umbra_vmcs::rules::CpuFacts;
use umbra_vmcs::{Vmcs12, VmxCaps};

pub const MEMORY_BYTES: usize = 2 << 20;
/// How many vmcs12s the machine keeps.
pub const SLOTS: usize = 8;
pub const REVISION: u32 = 0x2b;
pub const VMXON_REGION: u64 = 0x1000;
pub const VMCS_REGION: u64 = 0x2000;
/// L0's own memory, and the page that L1 finds there.
pub const HIDDEN: std::ops::Range<u64> = 0x1c_0000..0x1d_0000;
pub const VOID: u64 = 0x1d_0000;
/// Where the tests put the operands of instructions.
pub const OPERAND: u64 = 0x8000;

/// L0's shadow VMCS.
pub const SHADOW_REGION: u64 = 0x7fff_0000;

pub struct Machine {
    pub vmcs: HashMap<usize, Vmcs12>,
    pub current: Current,
    pub gprs: [u64; 16],
    pub memory: Rc<RefCell<Vec<u8>>>,
    pub msrs: HashMap<u32, u64>,
    pub tables: Rc<RefCell<HashMap<u64, [OwnEntry; 512]>>>,
    pub tsc: u64,
    pub tsc_at_exit: u64,
    pub cr2: u64,
    pub shadow: Vmcs12,
    pub reads: u64,
    pub writes: u64,
    pub log: Vec<String>,
    pub is_ept01_changed: bool,
    /// Another CPU changes every word before L0 does.
    pub is_contested: bool,
    pub pkru: u32,
    /// Linear address, bytes, whether written.
    pub accesses: Vec<(Linear, u64, bool)>,
    /// L0 intercepts no MSR of L2 for itself.
    pub opens_msrs: bool,
    /// The fields that the CPU has.
    pub present: FieldSet,
    /// The slots whose vmcs02 is lent to L1, and the one that L1 reaches.
    pub lent: std::collections::HashSet<usize>,
    pub linked: Option<usize>,
    /// How that is lent.
    pub how_lent: Lent,
}

pub struct Tables(Rc<RefCell<HashMap<u64, [OwnEntry; 512]>>>);

impl TableMemory for Tables {
    fn read(&self, table: TablePage, index: usize) -> OwnEntry {
        let tables = self.0.borrow();
        tables
            .get(&table.raw())
            .map_or(OwnEntry::EMPTY, |t| t[index])
    }
    fn write(&mut self, table: TablePage, index: usize, value: OwnEntry) {
        let mut tables = self.0.borrow_mut();
        tables.entry(table.raw()).or_insert([OwnEntry::EMPTY; 512])[index] = value;
    }
}

pub struct View(Rc<RefCell<Vec<u8>>>);

impl L1Memory for View {
    fn read_u64(&mut self, gpa: Gpa1) -> Option<u64> {
        let m = self.0.borrow();
        let at = usize::try_from(gpa.raw()).ok()?;
        Some(u64::from_le_bytes(m.get(at..at + 8)?.try_into().ok()?))
    }
    fn compare_exchange_u64(&mut self, gpa: Gpa1, old: u64, new: u64) -> bool {
        let word = self.read_u64(gpa);
        let gpa = gpa.raw();
        if word != Some(old) {
            return gpa as usize >= MEMORY_BYTES;
        }
        self.0.borrow_mut()[gpa as usize..gpa as usize + 8].copy_from_slice(&new.to_le_bytes());
        true
    }
    fn lookup01(&mut self, gpa: Gpa1) -> Option<Leaf01> {
        if gpa.raw() >> 40 != 0 {
            return None;
        }
        Some(Leaf01 {
            page: hpa(gpa.block(2 << 20).raw()),
            level: Level::Pd,
            rights: Rights::all(),
            mem_type: MemType::WriteBack,
        })
    }
}

impl Machine {
    pub fn new() -> Self {
        let mut machine = Self {
            vmcs: HashMap::new(),
            current: Current::Vmcs01,
            gprs: [0; 16],
            memory: Rc::new(RefCell::new(vec![0; MEMORY_BYTES])),
            msrs: HashMap::from([(0x3a, 5)]),
            tables: Rc::default(),
            tsc: 1000,
            tsc_at_exit: 900,
            cr2: 0,
            shadow: Vmcs12::new(),
            reads: 0,
            writes: 0,
            log: Vec::new(),
            is_ept01_changed: false,
            is_contested: false,
            pkru: 0,
            accesses: Vec::new(),
            opens_msrs: false,
            present: FieldSet::FULL,
            lent: std::collections::HashSet::new(),
            linked: None,
            how_lent: Lent::InPart,
        };
        // L1 in 64-bit mode at CPL 0, all of memory mapped by one table of
        // 1 GiB pages at 0x10000 and 0x11000.
        for (f, value) in [
            (field::GUEST_CR0, 0x8005_0033),
            (field::GUEST_CR4, 0x2020),
            (field::CR4_READ_SHADOW, 0x2020),
            (field::CR4_GUEST_HOST_MASK, 0x2000),
            (field::GUEST_CR3, 0x10000),
            (field::GUEST_IA32_EFER, 0xd00),
            (field::GUEST_RFLAGS, 2),
            (field::GUEST_CS_ACCESS_RIGHTS, 0xa09b),
            (field::GUEST_SS_ACCESS_RIGHTS, 0xc093),
            (field::GUEST_IA32_PAT, 0x0007_0406_0007_0406),
        ] {
            machine.write(f, value);
        }
        machine.poke(0x10000, &0x11003_u64.to_le_bytes());
        machine.poke(0x11000, &0x83_u64.to_le_bytes());
        machine.poke(VMXON_REGION, &REVISION.to_le_bytes());
        machine.poke(VMCS_REGION, &REVISION.to_le_bytes());
        machine
    }

    fn key(&self) -> usize {
        match self.current {
            Current::Vmcs01 => 0,
            Current::Vmcs02(slot) => slot.number() + 1,
        }
    }

    /// The instruction's memory operand: [disp] = OPERAND, no base or index.
    pub fn memory_operand(&mut self, register2: u32) {
        self.write(field::EXIT_QUALIFICATION, OPERAND);
        let info = 2 << 7 | 3 << 15 | 1 << 22 | 1 << 27 | register2 << 28;
        self.write(field::VM_EXIT_INSTRUCTION_INFORMATION, u64::from(info));
    }

    pub fn register_operands(&mut self, register1: u32, register2: u32) {
        let info = 1 << 10 | register1 << 3 | register2 << 28;
        self.write(field::VM_EXIT_INSTRUCTION_INFORMATION, u64::from(info));
    }
}

/// L2 exits, with what stands in its VMCS.
pub fn l2_exit(hw: &mut Machine, nested: &mut Nested) -> L2Done {
    let reason = ExitReason::new(hw.read(field::EXIT_REASON));
    nested.l2_exit(hw, reason)
}

/// A machine address of the model.
fn hpa(raw: u64) -> Hpa {
    // SAFETY: no CPU is given it: the model's memory is an array.
    unsafe { Hpa::new(raw) }
}

impl Machine {
    /// Copies L1's memory out.
    pub fn peek(&self, gpa: u64, bytes: &mut [u8]) {
        let m = self.memory.borrow();
        for (n, b) in bytes.iter_mut().enumerate() {
            let at = usize::try_from(gpa.wrapping_add(n as u64)).unwrap_or(usize::MAX);
            *b = m.get(at).copied().unwrap_or(0xff);
        }
    }

    /// Copies into L1's memory.
    pub fn poke(&mut self, gpa: u64, bytes: &[u8]) {
        let mut m = self.memory.borrow_mut();
        for (n, b) in bytes.iter().enumerate() {
            let at = usize::try_from(gpa.wrapping_add(n as u64)).unwrap_or(usize::MAX);
            if let Some(to) = m.get_mut(at) {
                *to = *b;
            }
        }
    }

    fn put(&mut self, f: Field, value: u64) {
        self.writes += 1;
        assert!(self.present.contains(f), "VMWRITE of {f:?}");
        self.vmcs.entry(self.key()).or_default().set(f, value);
    }
}

impl VmcsAccess for Machine {
    fn read(&mut self, f: Field) -> u64 {
        self.reads += 1;
        assert!(self.present.contains(f), "VMREAD of {f:?}");
        self.vmcs.entry(self.key()).or_default().get(f)
    }

    fn write(&mut self, f: Field, value: u64) {
        let is_guarded = flow::ADDRESSES.contains(f) || f.area() == Area::Host;
        assert!(!is_guarded, "{f:?} takes no number");
        self.put(f, value);
    }

    fn write_address(&mut self, f: Field, address: Hpa) {
        assert!(flow::DATA_ADDRESSES.contains(f), "{f:?} takes no page");
        self.put(f, address.raw());
    }

    fn write_ept_pointer(&mut self, pointer: OwnEptp) {
        self.put(field::EPT_POINTER, pointer.raw());
    }

    fn write_host_image(&mut self, image: &HostImage) {
        assert_eq!(self.current, Current::Vmcs01);
        for (f, value) in image.each() {
            self.write(f, value);
        }
    }

    fn lend_vmcs02(&mut self, slot: SlotId, how: Lent) {
        assert_eq!(self.current, Current::Vmcs02(slot));
        self.lent.insert(slot.number());
        self.linked = Some(slot.number());
        self.how_lent = how;
        self.current = Current::Vmcs01;
    }

    fn take_back_vmcs02(&mut self, slot: SlotId) {
        assert!(self.lent.remove(&slot.number()), "it is not lent");
        self.current = Current::Vmcs02(slot);
    }

    fn link_vmcs02(&mut self, lent: Option<(SlotId, Lent)>) {
        assert_eq!(self.current, Current::Vmcs01);
        self.linked = lent.map(|(slot, _)| slot.number());
        self.how_lent = lent.map_or(Lent::InPart, |(_, how)| how);
    }

    fn switch_to(&mut self, which: Current) {
        self.current = which;
    }

    fn shadow_region(&self) -> Hpa {
        hpa(SHADOW_REGION)
    }

    fn fill_shadow(&mut self, from: &Vmcs12, fields: &FieldSet) {
        self.current = Current::Vmcs01;
        for field in fields.iter() {
            self.shadow.set(field, from.get(field));
        }
    }

    fn drain_shadow(&mut self, fields: &FieldSet, mut take: impl FnMut(Field, u64)) {
        self.current = Current::Vmcs01;
        for field in fields.iter() {
            take(field, self.shadow.get(field));
        }
    }

    fn reset_vmcs02(&mut self, slot: SlotId) {
        self.lent.remove(&slot.number());
        self.current = Current::Vmcs02(slot);
        self.vmcs.insert(slot.number() + 1, Vmcs12::new());
    }
}

impl Registers for Machine {
    fn gpr(&self, number: usize) -> u64 {
        assert!(number != 4);
        self.gprs[number]
    }

    fn set_gpr(&mut self, number: usize, value: u64) {
        assert!(number != 4);
        self.gprs[number] = value;
    }

    fn set_cr2(&mut self, value: u64) {
        self.cr2 = value;
    }

    fn pkru(&mut self) -> u32 {
        self.pkru
    }
    fn note_access(&mut self, linear: Linear, bytes: u64, is_write: bool) {
        self.accesses.push((linear, bytes, is_write));
    }
}

impl Memory for Machine {
    fn read_l1(&self, gpa: Gpa1, bytes: &mut [u8]) {
        self.peek(gpa.raw(), bytes);
    }

    fn write_l1(&mut self, gpa: Gpa1, bytes: &[u8]) {
        self.poke(gpa.raw(), bytes);
    }

    fn set_bits_l1(&mut self, gpa: Gpa1, wide: bool, expected: u64, bits: u64) -> bool {
        let length = if wide { 8 } else { 4 };
        let mut bytes = [0; 8];
        self.read_l1(gpa, &mut bytes[..length]);
        if gpa.raw() as usize >= MEMORY_BYTES {
            return true;
        }
        if self.is_contested || u64::from_le_bytes(bytes) != expected {
            return false;
        }
        self.write_l1(gpa, &(expected | bits).to_le_bytes()[..length]);
        true
    }

    fn backing(&mut self, gpa: Gpa1) -> Hpa {
        match HIDDEN.contains(&gpa.raw()) {
            true => hpa(VOID | gpa.page_offset()),
            false => hpa(gpa.raw()),
        }
    }
}

impl Msrs for Machine {
    fn merge_msr_bitmap(&mut self, gpa: Gpa1) -> Hpa {
        self.log.push(format!("merge {gpa:#x}"));
        hpa(0xf0_0000)
    }

    fn open_msr(&mut self, gpa: Gpa1, index: u32, is_write: bool) -> bool {
        self.log
            .push(format!("open {gpa:#x} {index:#x} {is_write}"));
        self.opens_msrs
    }
    fn rdmsr_l1(&mut self, index: u32) -> Result<u64, MsrFault> {
        self.msrs.get(&index).copied().ok_or(MsrFault)
    }

    fn wrmsr_l1(&mut self, index: u32, value: u64) -> Result<(), MsrFault> {
        if index == 0xdead {
            return Err(MsrFault);
        }
        if index == 0x10 {
            self.tsc = value;
        }
        self.msrs.insert(index, value);
        Ok(())
    }

    fn tsc(&mut self) -> u64 {
        self.tsc
    }

    fn tsc_at_exit(&self) -> u64 {
        let vmcs = self.vmcs.get(&self.key()).expect("a VMCS is current");
        assert_eq!(vmcs.get(field::VM_EXIT_MSR_STORE_COUNT), 1);
        self.tsc_at_exit
    }
}

impl Translations for Machine {
    type Tables = Tables;

    type Memory<'a> = View;

    fn ept(&mut self) -> (Tables, View) {
        (Tables(self.tables.clone()), View(self.memory.clone()))
    }

    fn invvpid_single(&mut self, vpid: u16) {
        assert_ne!(vpid, 0);
        self.log.push(format!("invvpid {vpid:#x}"));
    }

    fn invvpid_address(&mut self, vpid: u16, linear: Linear) {
        self.log.push(format!("invvpid {vpid:#x} {linear:#x}"));
    }

    fn invvpid_single_retaining_globals(&mut self, vpid: u16) {
        self.log.push(format!("invvpid globals {vpid:#x}"));
    }

    fn invvpid_all(&mut self) {
        self.log.push("invvpid all".into());
    }

    fn invept_single(&mut self, eptp: OwnEptp) {
        self.log.push(format!("invept {:#x}", eptp.raw()));
    }

    fn invept_all(&mut self) {
        self.log.push("invept all".into());
    }

    fn has_ept01_change(&self) -> bool {
        self.is_ept01_changed
    }
    fn take_ept01_change(&mut self) -> bool {
        std::mem::take(&mut self.is_ept01_changed)
    }

    fn ept01_pointer(&self) -> OwnEptp {
        // SAFETY: no CPU walks it.
        let pages = unsafe { TablePages::new(0xe0_0000, 1) };
        OwnEptp::new(pages.first(), false)
    }

    fn keep_small_ept01(&mut self, gpa: Gpa1) {
        self.log.push(format!("small {gpa:#x}"));
    }

    fn map_ept01(&mut self, gpa: Gpa1) -> bool {
        self.log.push(format!("ept01 {gpa:#x}"));
        gpa.raw() >> 40 == 0
    }
}

/// What L1 sees on a CPU with all that Umbra offers.
pub fn capabilities() -> VmxCaps {
    offer::offer(&capabilities_below(), &FieldSet::FULL)
}

/// A CPU with all that Umbra offers.
pub fn capabilities_below() -> VmxCaps {
    let allow = |must: u32| Allowed(0xffff_ffff << 32 | u64::from(must));
    VmxCaps {
        basic: 1 << 55 | 1 << 54 | 6 << 50 | 0x1000 << 32 | u64::from(REVISION),
        pin_plain: allow(0x16),
        pin_true: allow(0x16),
        proc_plain: allow(0x0401_e172),
        proc_true: allow(0x0400_6172),
        exit_plain: allow(0x0003_6dff),
        exit_true: allow(0x0003_6dfb),
        entry_plain: allow(0x11ff),
        entry_true: allow(0x11fb),
        proc2: allow(0),
        proc3: 0,
        exit2: 0,
        misc: 0x2000_01e0 | 4 << 16 | 1 << 30,
        cr0_fixed0: 0x8000_0021,
        cr0_fixed1: 0xffff_ffff,
        cr4_fixed0: 0x2000,
        cr4_fixed1: 0x7f_ffff,
        vmcs_enum: 0x3e,
        ept_vpid: 0x0f01_0673_4141,
        vmfunc: 1,
    }
}

pub fn cpu_facts() -> CpuFacts {
    CpuFacts {
        physical_address_bits: 40,
        linear_address_bits: 48,
        lam: false,
        rtm: false,
        sgx: false,
        bus_lock_detection: false,
        nmi_needs_no_sti_blocking: false,
        efer_writable: 0xd01,
        debugctl_writable: 0x1c3,
        perf_global_ctrl_writable: 0,
        rtit_ctl_writable: 0,
        lbr_ctl_writable: 0,
        spec_ctrl_writable: 0,
        s_cet_writable: 0,
    }
}

pub fn nested() -> Nested {
    nested_with(FieldSet::FULL)
}

/// On a CPU that has these fields alone.
pub fn nested_with(present: FieldSet) -> Nested {
    nested_on(0, present)
}

/// On this CPU.
pub fn nested_on(owner: u16, present: FieldSet) -> Nested {
    let caps = offer::offer(&capabilities_below(), &present);
    let slots: Vec<Slot> = (0..SLOTS).map(|_| Slot::free()).collect();
    let slots = Slots::new(Box::leak(slots.into_boxed_slice()), owner);
    let mut nested = Nested::new(caps, present, cpu_facts(), true, slots);
    let config = Config {
        caches: 8,
        pages_per_cache: 16,
        refill: 16,
        merge: Merge::default(),
        hardware: umbra_ept::caps::Caps::from_msr(capabilities().ept_vpid, 40),
    };
    // SAFETY: the model's tables are in a map.
    let pages = unsafe { TablePages::new(0x1_0000_0000, 128) };
    nested
        .pool
        .configure(pages, &config)
        .expect("the pool takes its pages");
    nested
}

/// A machine whose L1 is in VMX operation with a clear, current VMCS.
pub fn in_vmx() -> (Machine, Nested) {
    in_vmx_with(FieldSet::FULL)
}

/// The same on a CPU that has these fields alone.
pub fn in_vmx_with(present: FieldSet) -> (Machine, Nested) {
    let mut hw = Machine::new();
    hw.present = present;
    let mut nested = nested_with(present);
    assert_eq!(
        pointer(&mut hw, &mut nested, Reason::Vmxon, VMXON_REGION),
        Done::Next
    );
    assert!(succeeded(&mut hw));
    assert_eq!(
        pointer(&mut hw, &mut nested, Reason::Vmclear, VMCS_REGION),
        Done::Next
    );
    assert_eq!(
        pointer(&mut hw, &mut nested, Reason::Vmptrld, VMCS_REGION),
        Done::Next
    );
    assert!(succeeded(&mut hw));
    (hw, nested)
}

/// An instruction with a 64-bit memory operand.
pub fn pointer(hw: &mut Machine, nested: &mut Nested, reason: Reason, value: u64) -> Done {
    hw.poke(OPERAND, &value.to_le_bytes());
    hw.memory_operand(0);
    nested.instruction(hw, reason)
}

/// VMWRITE by registers.
pub fn vmwrite(hw: &mut Machine, nested: &mut Nested, encoding: u64, value: u64) {
    hw.register_operands(0, 1);
    hw.gprs[0] = value;
    hw.gprs[1] = encoding;
    assert_eq!(nested.instruction(hw, Reason::Vmwrite), Done::Next);
}

/// VMREAD by registers.
pub fn vmread(hw: &mut Machine, nested: &mut Nested, encoding: u64) -> u64 {
    hw.register_operands(0, 1);
    hw.gprs[1] = encoding;
    assert_eq!(nested.instruction(hw, Reason::Vmread), Done::Next);
    hw.gprs[0]
}

pub fn succeeded(hw: &mut Machine) -> bool {
    hw.read(field::GUEST_RFLAGS) & 0x8d5 == 0
}

/// The number of a VMfailValid, read as L1 would.
pub fn error(hw: &mut Machine, nested: &mut Nested) -> Option<u64> {
    if hw.read(field::GUEST_RFLAGS) & 0x8d5 != 0x40 {
        return None;
    }
    Some(vmread(
        hw,
        nested,
        field::VM_INSTRUCTION_ERROR.encoding().into(),
    ))
}

/// The fields of a 64-bit L2 that any rule lets through, EPT off.
pub fn valid_fields() -> Vec<(Field, u64)> {
    let mut fields = vec![
        (field::PIN_BASED_CONTROLS, 0x16),
        (field::PRIMARY_PROCESSOR_BASED_CONTROLS, 0x0400_6172),
        (field::PRIMARY_VM_EXIT_CONTROLS, 0x0003_6dfb | 1 << 9),
        (field::VM_ENTRY_CONTROLS, 0x11fb | 1 << 9),
        (field::HOST_CR0, 0x8005_0033),
        (field::HOST_CR3, 0x10000),
        (field::HOST_CR4, 0x2020),
        (field::HOST_CS_SELECTOR, 8),
        (field::HOST_SS_SELECTOR, 16),
        (field::HOST_DS_SELECTOR, 16),
        (field::HOST_ES_SELECTOR, 16),
        (field::HOST_TR_SELECTOR, 24),
        (field::HOST_RIP, 0x40_1000),
        (field::HOST_RSP, 0x50_0000),
        (field::GUEST_CR0, 0x8005_0033),
        (field::GUEST_CR3, 0x10000),
        (field::GUEST_CR4, 0x2020),
        (field::GUEST_RIP, 0x60_0000),
        (field::GUEST_RSP, 0x70_0000),
        (field::GUEST_RFLAGS, 2),
        (field::GUEST_DR7, 0x400),
        (field::VMCS_LINK_POINTER, u64::MAX),
        (field::GUEST_CS_SELECTOR, 8),
        (field::GUEST_CS_LIMIT, 0xffff_ffff),
        (field::GUEST_CS_ACCESS_RIGHTS, 0xa09b),
        (field::GUEST_TR_SELECTOR, 24),
        (field::GUEST_TR_LIMIT, 0x67),
        (field::GUEST_TR_ACCESS_RIGHTS, 0x8b),
        (field::GUEST_LDTR_ACCESS_RIGHTS, 0x10000),
    ];
    for data in SegmentFields::DATA {
        fields.extend([
            (data.selector, 16),
            (data.limit, 0xffff_ffff),
            (data.rights, 0xc093),
        ]);
    }
    fields
}

/// A machine whose L1 has written a valid VMCS.
pub fn with_valid_vmcs() -> (Machine, Nested) {
    with_valid_vmcs_on(FieldSet::FULL)
}

/// The same on a CPU that has these fields alone.
pub fn with_valid_vmcs_on(present: FieldSet) -> (Machine, Nested) {
    let (mut hw, mut nested) = in_vmx_with(present);
    for (f, value) in valid_fields() {
        vmwrite(&mut hw, &mut nested, f.encoding().into(), value);
        assert!(succeeded(&mut hw), "{f:?}");
    }
    (hw, nested)
}

/// The CPU stores an exit of L2 into vmcs02.
pub fn exit_from_l2(hw: &mut Machine, reason: u32, changes: &[(Field, u64)]) {
    assert!(matches!(hw.current, Current::Vmcs02(_)));
    hw.write(field::EXIT_REASON, reason.into());
    for f in [
        field::EXIT_QUALIFICATION,
        field::VM_EXIT_INTERRUPTION_INFORMATION,
        field::IDT_VECTORING_INFORMATION,
    ] {
        hw.write(f, 0);
    }
    let event = hw.read(field::VM_ENTRY_INTERRUPTION_INFORMATION);
    hw.write(field::VM_ENTRY_INTERRUPTION_INFORMATION, event & !(1 << 31));
    for (f, value) in changes {
        hw.write(*f, *value);
    }
}
