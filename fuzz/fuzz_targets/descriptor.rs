//! Header, descriptor slots and records: any bytes, and what parses is written back the same.
#![no_main]

use dmsnap::format::{Descriptor, Exception, Header, HeaderState, SlotState};
use dmsnap_fuzz::builder::seal;
use dmsnap_fuzz::confine::confined;
use libfuzzer_sys::fuzz_target;

const SLOT: usize = 1536;
const LIMIT: usize = 1 << 20;

fuzz_target!(|data: &[u8]| confined(LIMIT, || parse(data)));

fn parse(data: &[u8]) {
    header(data);
    records(data);
    let (first, second) = data.split_at(data.len().min(SLOT));
    let raw = [first.to_vec(), second.to_vec()];
    // With the right magic and checksum the fields behind them are reached.
    let sealed = [sealed(first), sealed(second)];
    for slots in [&raw, &sealed] {
        let states = [slot(&slots[0]), slot(&slots[1])];
        choose(slots, &states);
    }
}

fn header(data: &[u8]) {
    if let Ok(HeaderState::Store(header)) = Header::decode(data) {
        assert_eq!(header.encode(), data[..16], "a header that was read");
        assert!(header.chunk_size.bytes() >= 512 && header.chunk_size.bytes() <= 1 << 30);
    }
}

fn records(data: &[u8]) {
    for bytes in data.chunks_exact(16) {
        let bytes: &[u8; 16] = bytes.try_into().expect("sixteen bytes");
        let record = Exception::decode(bytes);
        assert_eq!(record.encode(), *bytes);
        assert_eq!(record.is_end(), bytes[8..] == [0; 8]);
    }
}

fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut slot = bytes.to_vec();
    slot.resize(SLOT, 0);
    slot[..8].copy_from_slice(b"DMSNAPim");
    // Only its low bits are of interest.
    let length = 96 + (u32::from_le_bytes([slot[8], slot[9], slot[10], slot[11]]) % 1600);
    slot[8..12].copy_from_slice(&length.to_le_bytes());
    seal(&mut slot);
    slot
}

fn slot(bytes: &[u8]) -> SlotState {
    let state = Descriptor::decode(bytes);
    if let SlotState::Valid(descriptor) = &state {
        let again = descriptor.encode().expect("what was read can be written");
        let length = u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes")) as usize;
        assert_eq!(again[..length], bytes[..length], "a record that was read");
        assert!(again[length..].iter().all(|byte| *byte == 0));
        assert_eq!(Descriptor::decode(&again), state);
        assert!(descriptor.virtual_size.is_multiple_of(512));
        assert!(
            descriptor
                .origin_name
                .as_ref()
                .is_none_or(|name| name.len() <= 1023)
        );
    }
    state
}

fn choose(slots: &[Vec<u8>; 2], states: &[SlotState; 2]) {
    let damage = Descriptor::damage([&slots[0], &slots[1]], [512, 2048]);
    assert!(damage.len() <= 2);
    damage.iter().for_each(|damage| _ = damage.to_string());
    match Descriptor::choose(&slots[0], &slots[1]) {
        Ok(Some((index, chosen))) => {
            assert_eq!(SlotState::Valid(chosen.clone()), states[index]);
            if let SlotState::Valid(other) = &states[1 - index] {
                assert!(
                    other.generation <= chosen.generation,
                    "the newer one counts"
                );
            }
        }
        Ok(None) => assert!(states.iter().all(|state| *state == SlotState::Empty)),
        Err(error) => _ = error.to_string(),
    }
}
