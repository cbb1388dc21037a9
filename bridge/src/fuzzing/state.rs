//! The state of a bridge in a hand-over (O2): JSON, with the bytes that it refers to behind it.

use super::decode_with;
use crate::hand_over::BridgeState;

/// The bytes are a state, and also those that the state refers to.
pub fn state(bytes: &[u8]) {
    let Ok(state) = serde_json::from_slice::<BridgeState>(bytes) else { return };
    let written = serde_json::to_string(&state).expect("it can be written");
    let again: BridgeState = serde_json::from_str(&written).expect("it can be read again");
    assert_eq!(serde_json::to_string(&again).expect("it can be written"), written);
    let _ = state.descriptors();
    for session in &state.sessions {
        let _ = session.is_busy();
        // If the state of a decoder is accepted, no byte makes that decoder panic.
        if session.client.look(bytes).is_ok() {
            decode_with(session.client.codec(), bytes);
        }
    }
}
