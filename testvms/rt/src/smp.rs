//! Other CPUs: from the start-up IPI to 64-bit Rust, and work for them.
//!
//! A CPU that was started waits for a function to run and says when it is done; it prints nothing.
//! Expected exceptions ([`trap`](crate::trap)) are for one CPU at a time.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use crate::apic::{self, Ipi};
use crate::gdt::{self, MAX_CPUS};
use crate::page::Page;
use crate::trap;

global_asm!(
    r#"
    .section .rodata.ap, "a"
    .balign 16
rt_ap_page:
    .code16
    // What the CPU has, before anything changes it. The data of this page begins at 0x800.
    mov dword ptr cs:[0x800], eax
    mov dword ptr cs:[0x804], ebx
    mov dword ptr cs:[0x808], ecx
    mov dword ptr cs:[0x80c], edx
    mov dword ptr cs:[0x810], esi
    mov dword ptr cs:[0x814], edi
    mov dword ptr cs:[0x818], ebp
    mov dword ptr cs:[0x81c], esp
    mov word ptr cs:[0x820], cs
    mov word ptr cs:[0x824], ds
    mov word ptr cs:[0x828], es
    mov word ptr cs:[0x82c], ss
    mov word ptr cs:[0x830], fs
    mov word ptr cs:[0x834], gs
    mov ax, cs
    mov ss, ax
    mov sp, 0xff0
    pushfd
    pop dword ptr cs:[0x838]
    call 2f
2:  pop ax
    .byte 0x2d
    .word 2b - rt_ap_page
    movzx eax, ax
    mov dword ptr cs:[0x83c], eax
    mov eax, cr0
    mov dword ptr cs:[0x840], eax
    mov eax, cr2
    mov dword ptr cs:[0x844], eax
    mov eax, cr3
    mov dword ptr cs:[0x848], eax
    mov eax, cr4
    mov dword ptr cs:[0x84c], eax
    mov eax, dr6
    mov dword ptr cs:[0x850], eax
    mov eax, dr7
    mov dword ptr cs:[0x854], eax
    mov ecx, 0xc0000080
    rdmsr
    mov dword ptr cs:[0x858], eax
    .byte 0x66
    sgdt cs:[0x860]
    .byte 0x66
    sidt cs:[0x868]
    mov ebx, dword ptr cs:[0x8d0]
    mov ecx, dword ptr cs:[0x8d8]
    .byte 0x66
    lgdt cs:[0x8c0]
    // Protected mode; ET stays.
    mov eax, 0x11
    mov cr0, eax
    .byte 0x66, 0xea
    .long rt_ap32
    .word 0x18
rt_ap_page_end:

rt_ap_count:
    lock inc word ptr cs:[0x800]
2:  cli
    hlt
    jmp 2b
rt_ap_count_end:

    .section .text.boot, "ax"
    .code32
rt_ap32:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, ecx
    mov eax, 0x620
    mov cr4, eax
    mov eax, offset boot_pml4
    mov cr3, eax
    mov ecx, 0xc0000080
    xor edx, edx
    mov eax, 0x100
    wrmsr
    mov eax, 0x80010033
    mov cr0, eax
    .byte 0xea
    .long rt_ap64
    .short 0x08
    .code64
rt_ap64:
    xor eax, eax
    mov fs, eax
    mov gs, eax
    xor ebp, ebp
    mov edi, ebx
    call {start}
    ud2
    .text
    "#,
    start = sym start,
);

unsafe extern "C" {
    static rt_ap_page: u8;
    static rt_ap_page_end: u8;
    static rt_ap_count: u8;
    static rt_ap_count_end: u8;
}

/// Bytes of a CPU's stack.
const STACK_PAGES: usize = 8;
/// Where the data of the start-up page lies.
const DATA: u64 = 0x800;
/// How often to look before a CPU counts as lost.
const PATIENCE: u32 = 3_000_000;
/// How many times as long every wait is.
static PACE: AtomicU32 = AtomicU32::new(1);

/// Registers of a CPU at its first instruction, in the order in which the code above stores them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[repr(C)]
#[allow(missing_docs)]
pub struct StartState {
    /// EAX, EBX, ECX, EDX, ESI, EDI, EBP, ESP.
    pub general: [u32; 8],
    /// CS, DS, ES, SS, FS, GS.
    pub selectors: [u32; 6],
    pub eflags: u32,
    pub ip: u32,
    pub cr0: u32,
    pub cr2: u32,
    pub cr3: u32,
    pub cr4: u32,
    pub dr6: u32,
    pub dr7: u32,
    pub efer: u32,
    unused: u32,
    /// Limit and base of GDTR, then of IDTR.
    pub tables: [u32; 4],
}

struct Slot {
    starts: AtomicU32,
    work: AtomicU64,
    done: AtomicU32,
}

static SLOTS: [Slot; MAX_CPUS] = [const {
    Slot {
        starts: AtomicU32::new(0),
        work: AtomicU64::new(0),
        done: AtomicU32::new(0),
    }
}; MAX_CPUS];

/// Rust begins here on every CPU but the first.
extern "C" fn start(index: u64) -> ! {
    let index = index as usize;
    gdt::init();
    trap::reload();
    let slot = &SLOTS[index];
    slot.starts.fetch_add(1, SeqCst);
    loop {
        let work = slot.work.swap(0, SeqCst);
        if work != 0 {
            // SAFETY: `Cpu::begin` stores nothing but functions of this type.
            let work: fn(usize) = unsafe { core::mem::transmute(work as usize) };
            work(index);
            slot.done.fetch_add(1, SeqCst);
        }
        core::hint::spin_loop();
    }
}

/// Makes every wait `times` as long: on top of several hypervisors what other CPUs do takes them
/// much longer, and the turns of a waiting loop do not.
pub fn set_pace(times: u32) {
    PACE.store(times.max(1), SeqCst);
}

fn pace() -> u64 {
    u64::from(PACE.load(SeqCst))
}

/// Looks until `is_done`; `false` when that never comes.
pub fn wait_for(mut is_done: impl FnMut() -> bool) -> bool {
    for _ in 0..u64::from(PATIENCE) * pace() {
        if is_done() {
            return true;
        }
        core::hint::spin_loop();
    }
    false
}

/// Lets the other CPUs run for a while.
pub fn delay(turns: u32) {
    for _ in 0..u64::from(turns) * pace() {
        core::hint::spin_loop();
    }
}

/// Puts code into the page that start-up IPIs with this vector name: free conventional memory.
fn fill(vector: u8, start: *const u8, end: *const u8) -> u64 {
    let page = u64::from(vector) << 12;
    let length = end as usize - start as usize;
    // SAFETY: the pages chosen are conventional memory that nobody uses, mapped one to one; the
    // code is shorter than the page's first half.
    unsafe {
        core::ptr::write_bytes(page as *mut u8, 0, 4096);
        core::ptr::copy_nonoverlapping(start, page as *mut u8, length);
    }
    page
}

/// Sends INIT and one start-up IPI to all CPUs but this one at once, and counts those that answer.
/// They halt.
pub fn count_others(vector: u8) -> u32 {
    let answered = prepare_count(vector);
    apic::send_to_others(Ipi::Init);
    delay(100_000);
    apic::send_to_others(Ipi::StartUp(vector));
    until_steady(answered)
}

/// The same in haste, one CPU after another: one start-up IPI, right behind INIT. CPUs that wait since
/// the reset take it.
pub fn count_in_haste(vector: u8, ids: impl Iterator<Item = u32>) -> u32 {
    let answered = prepare_count(vector);
    for id in ids {
        apic::send(id, Ipi::Init);
        apic::send(id, Ipi::StartUp(vector));
    }
    until_steady(answered)
}

/// The count when no more CPUs answer.
fn until_steady(answered: impl Fn() -> u32) -> u32 {
    let mut before = u32::MAX;
    while before != answered() {
        before = answered();
        delay(3_000_000);
    }
    before
}

/// Code that counts at the page of a vector; the result reads the count.
fn prepare_count(vector: u8) -> impl Fn() -> u32 {
    let page = fill(vector, &raw const rt_ap_count, &raw const rt_ap_count_end);
    let counter = (page + DATA) as *const u16;
    // SAFETY: that page, which CPUs write to behind the compiler's back.
    move || u32::from(unsafe { counter.read_volatile() })
}

/// A CPU other than the one that booted.
pub struct Cpu {
    /// Its index, from 1 on.
    pub index: usize,
    /// Its local APIC id.
    pub id: u32,
    stack: Page,
}

impl Cpu {
    /// A CPU that is not started yet.
    pub fn new(index: usize, id: u32) -> Self {
        assert!((1..MAX_CPUS).contains(&index), "more than {MAX_CPUS} CPUs");
        Self {
            index,
            id,
            stack: Page::alloc(STACK_PAGES),
        }
    }

    fn slot(&self) -> &'static Slot {
        &SLOTS[self.index]
    }

    /// How often it was started.
    pub fn starts(&self) -> u32 {
        self.slot().starts.load(SeqCst)
    }

    /// Prepares the page that start-up IPIs with this vector name.
    pub fn prepare(&self, vector: u8) {
        let page = fill(vector, &raw const rt_ap_page, &raw const rt_ap_page_end);
        let table = gdt::base_of(self.index);
        let top = self.stack.address() + STACK_PAGES as u64 * 4096;
        // SAFETY: the page that was just filled.
        unsafe {
            let data = (page + DATA) as *mut u8;
            data.add(0xc0).cast::<u16>().write_volatile(gdt::LIMIT);
            let base = data.add(0xc2).cast::<u32>();
            base.write_unaligned(table as u32);
            data.add(0xd0)
                .cast::<u32>()
                .write_volatile(self.index as u32);
            data.add(0xd8).cast::<u32>().write_volatile(top as u32);
        }
        self.slot().work.store(0, SeqCst);
    }

    /// What it had at its first instruction.
    pub fn start_state(&self, vector: u8) -> StartState {
        let data = ((u64::from(vector) << 12) + DATA) as *const StartState;
        // SAFETY: the CPU has left that page; integers.
        unsafe { data.read_volatile() }
    }

    /// Start-up IPIs until it runs; `false` when it never does.
    pub fn start_up(&self, vector: u8) -> bool {
        let before = self.starts();
        for _ in 0..100 {
            apic::send(self.id, Ipi::StartUp(vector));
            for _ in 0..200_000 {
                if self.starts() != before {
                    return true;
                }
                core::hint::spin_loop();
            }
        }
        false
    }

    /// INIT, then start-up.
    pub fn restart(&self, vector: u8) -> bool {
        self.prepare(vector);
        apic::send(self.id, Ipi::Init);
        delay(30_000);
        self.start_up(vector)
    }

    /// Has it run a function, which gets the CPU's index.
    pub fn begin(&self, work: fn(usize)) {
        self.slot().done.store(0, SeqCst);
        self.slot().work.store(work as usize as u64, SeqCst);
    }

    /// Whether it has returned from that function.
    pub fn is_done(&self) -> bool {
        self.slot().done.load(SeqCst) != 0
    }

    /// Waits for that; `false` when it never comes.
    pub fn wait(&self) -> bool {
        wait_for(|| self.is_done())
    }

    /// Has it run a function to its end.
    pub fn run(&self, work: fn(usize)) -> bool {
        self.begin(work);
        self.wait()
    }
}
