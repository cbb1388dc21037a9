//! What a bridge has said of itself to another image of this program (O2): with JSON, and the bytes that it speaks of behind it.

use super::decode_with;
use crate::hand_over::BridgeState;

/// The bytes are a state; those that it speaks of are the same.
pub fn state(bytes: &[u8]) {
    let Ok(state) = serde_json::from_slice::<BridgeState>(bytes) else { return };
    let written = serde_json::to_string(&state).expect("it can be written");
    let again: BridgeState = serde_json::from_str(&written).expect("it can be read again");
    assert_eq!(serde_json::to_string(&again).expect("it can be written"), written);
    let _ = state.descriptors();
    for session in &state.sessions {
        let _ = session.is_busy();
        // Whatever a decoder that is believed is in the middle of, no byte makes it panic.
        if session.client.look(bytes).is_ok() {
            decode_with(session.client.codec(), bytes);
        }
    }
}
