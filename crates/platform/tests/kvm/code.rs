//! Guests in machine code, so that a test needs no compiler and no other file: kernels that do one thing, and a first
//! process for Linux.

/// x86-64 instructions, one after the other.
#[derive(Debug, Clone, Default)]
pub struct Code(Vec<u8>);

impl Code {
    fn add(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// `mov dx, port; mov al, value; out dx, al`
    pub fn port(self, port: u16, value: u8) -> Self {
        let [low, high] = port.to_le_bytes();
        self.add(&[0x66, 0xba, low, high, 0xb0, value, 0xee])
    }

    /// Each byte to the serial line.
    pub fn say(self, text: &str) -> Self {
        text.bytes().fold(self, |code, byte| code.port(0x3f8, byte))
    }

    /// Off, by the sleep control register.
    pub fn power_off(self) -> Self {
        self.port(0x600, 0x34)
    }

    /// `jmp` to itself.
    pub fn spin(self) -> Self {
        self.add(&[0xeb, 0xfe])
    }

    /// Jumps back over the last `bytes` bytes.
    pub fn again(self, bytes: u8) -> Self {
        let back = 0_u8.wrapping_sub(bytes + 2);
        self.add(&[0xeb, back])
    }

    /// `ud2`
    pub fn undefined(self) -> Self {
        self.add(&[0x0f, 0x0b])
    }

    /// `mov rax, value; mov [address], rax`
    pub fn store(self, address: u64, value: u64) -> Self {
        // mov rax, value; mov rbx, address; mov [rbx], rax
        self.add(&[0x48, 0xb8])
            .add(&value.to_le_bytes())
            .add(&[0x48, 0xbb])
            .add(&address.to_le_bytes())
            .add(&[0x48, 0x89, 0x03])
    }

    /// Says the low byte of what lies at `address`.
    pub fn say_byte_at(self, address: u64) -> Self {
        // mov rbx, address; mov al, [rbx]; mov dx, 0x3f8; out dx, al
        self.add(&[0x48, 0xbb])
            .add(&address.to_le_bytes())
            .add(&[0x8a, 0x03, 0x66, 0xba, 0xf8, 0x03, 0xee])
    }

    /// Reads a byte of each of so many pages.
    pub fn touch(self, address: u64, pages: u32) -> Self {
        // mov rbx, address; mov ecx, pages; again: mov al, [rbx]; add rbx, 4096; dec ecx; jnz again
        self.add(&[0x48, 0xbb])
            .add(&address.to_le_bytes())
            .add(&[0xb9])
            .add(&pages.to_le_bytes())
            .add(&[
                0x8a, 0x03, 0x48, 0x81, 0xc3, 0, 0x10, 0, 0, 0xff, 0xc9, 0x75, 0xf3,
            ])
    }

    /// Says the low byte of EBX that `cpuid` answers.
    pub fn say_cpuid(self, leaf: u32, index: u32) -> Self {
        // mov eax, leaf; mov ecx, index; cpuid; mov al, bl; mov dx, 0x3f8; out dx, al
        self.add(&[0xb8])
            .add(&leaf.to_le_bytes())
            .add(&[0xb9])
            .add(&index.to_le_bytes())
            .add(&[0x0f, 0xa2, 0x88, 0xd8, 0x66, 0xba, 0xf8, 0x03, 0xee])
    }

    /// `syscall` with up to three arguments; `None` leaves what is in the register.
    pub fn syscall(self, number: u32, arguments: [Option<u32>; 3]) -> Self {
        // mov edi, …; mov esi, …; mov edx, …; mov eax, number; syscall
        let loads = [0xbf, 0xbe, 0xba];
        let code = loads
            .iter()
            .zip(arguments)
            .fold(self, |code, (opcode, value)| match value {
                Some(value) => code.add(&[*opcode]).add(&value.to_le_bytes()),
                None => code,
            });
        code.add(&[0xb8])
            .add(&number.to_le_bytes())
            .add(&[0x0f, 0x05])
    }

    /// Writes `text` to the first process's standard output.
    pub fn print(self, text: &str) -> Self {
        // call over the text, which leaves its address on the stack; pop rsi
        let length = text.len() as u32;
        self.add(&[0xe8])
            .add(&length.to_le_bytes())
            .add(text.as_bytes())
            .add(&[0x5e])
            .syscall(1, [Some(1), None, Some(length)])
    }

    /// Prints the eight bytes at `offset` of the stack's top, in hexadecimal digits from '0' to '?'.
    pub fn print_word(self, offset: u8) -> Self {
        // lea rsi, [rsp - 64]; mov rbx, [rsp + offset]; mov ecx, 16
        // again: rol rbx, 4; mov al, bl; and al, 15; add al, '0'; mov [rsi], al; inc rsi; dec ecx; jnz again
        // lea rsi, [rsp - 64]; write(1, rsi, 16)
        self.add(&[0x48, 0x8d, 0x74, 0x24, 0xc0])
            .add(&[0x48, 0x8b, 0x5c, 0x24, offset])
            .add(&[0xb9, 16, 0, 0, 0])
            .add(&[0x48, 0xc1, 0xc3, 4, 0x88, 0xd8, 0x24, 15, 0x04, b'0'])
            .add(&[0x88, 0x06, 0x48, 0xff, 0xc6, 0xff, 0xc9, 0x75, 0xed])
            .add(&[0x48, 0x8d, 0x74, 0x24, 0xc0])
            .syscall(1, [Some(1), None, Some(16)])
    }

    /// Prints `label` and the mask of processors that the first process may use.
    pub fn print_processors(self, label: &str) -> Self {
        // sub rsp, 1024; mov rdx, rsp: room for the mask, zeros
        self.print(label)
            .add(&[0x48, 0x81, 0xec, 0, 4, 0, 0, 0x48, 0x89, 0xe2])
            .syscall(204, [Some(0), Some(1024), None])
            .print_word(0)
            .print("\n")
    }

    /// Prints `label` and the bytes of memory that the kernel has.
    pub fn print_memory(self, label: &str) -> Self {
        // sub rsp, 1024; mov rdi, rsp: struct sysinfo, in which the total stands at 32
        self.print(label)
            .add(&[0x48, 0x81, 0xec, 0, 4, 0, 0, 0x48, 0x89, 0xe7])
            .syscall(99, [None, None, None])
            .print_word(32)
            .print("\n")
    }

    /// `reboot` with the given command.
    pub fn reboot(self, command: u32) -> Self {
        self.syscall(169, [Some(0xfee1_dead), Some(672_274_793), Some(command)])
    }

    /// `exit_group(1)`, with which a kernel that ran it as its first process panics.
    pub fn exit(self) -> Self {
        self.syscall(231, [Some(1), None, None])
    }

    /// `fork()`: both go on.
    pub fn fork(self) -> Self {
        self.syscall(57, [None, None, None])
    }

    /// As a kernel: an ELF file that is loaded and entered at 16 MiB.
    pub fn kernel(&self) -> Vec<u8> {
        elf(&self.0, 0xffff_ffff_8100_0000, 0x100_0000, 0x100_0000)
    }

    /// As a program.
    pub fn program(&self) -> Vec<u8> {
        elf(&self.0, 0x40_0000, 0x40_0000, 0x40_0000)
    }
}

fn elf(code: &[u8], address: u64, physical: u64, entry: u64) -> Vec<u8> {
    const START: usize = 0x1000;
    let mut file = vec![0_u8; START];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    // ET_EXEC, x86-64, version 1.
    put(16, &[2, 0, 62, 0, 1, 0, 0, 0]);
    put(24, &entry.to_le_bytes());
    // Program headers at 64; header sizes.
    put(32, &64_u64.to_le_bytes());
    put(52, &[64, 0, 56, 0, 1, 0]);
    // PT_LOAD, readable and executable, from START.
    put(64, &[1, 0, 0, 0, 5, 0, 0, 0]);
    put(72, &(START as u64).to_le_bytes());
    put(80, &address.to_le_bytes());
    put(88, &physical.to_le_bytes());
    put(96, &(code.len() as u64).to_le_bytes());
    put(104, &(code.len() as u64).to_le_bytes());
    put(112, &(START as u64).to_le_bytes());
    file.extend_from_slice(code);
    file
}
