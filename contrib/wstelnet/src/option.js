// One telnet option on one side of the connection, by the Q method of RFC 1143.
//
// Knows the six states and what answer each transition owes. It does not know
// which option it stands for, on whose side, or how an answer is written.

/**
 * Whether an option is on, and what was asked and not yet answered. "on" and
 * "off" are WILL and WONT for the peer's options, DO and DONT for ours.
 */
export class Option {
  // "no" | "yes" | "want-no" | "want-yes"; RFC 1143 section 7.
  #state = "no";
  // The queue bit: the opposite of what is being asked shall be asked next.
  #opposite = false;

  /** Whether the option is in force now. */
  get enabled() {
    return this.#state === "yes";
  }

  /**
   * The peer asked for, or announced, the option being `on`, and we agree: an
   * option that we never agree to has no state to keep. Returns what must be
   * sent: true, false, or undefined where an answer would start a loop.
   */
  receive(on) {
    return on ? this.#receiveOn() : this.#receiveOff();
  }

  /** We want the option `on` or off. Returns what must be sent, as above. */
  request(on) {
    const [settled, reached, pending, contrary] = on
      ? ["no", "yes", "want-yes", "want-no"]
      : ["yes", "no", "want-no", "want-yes"];
    switch (this.#state) {
      case settled:
        this.#state = pending;
        return on;
      case contrary:
        this.#opposite = true;
        return undefined;
      case pending:
        this.#opposite = false;
        return undefined;
      case reached:
        return undefined;
    }
  }

  #receiveOn() {
    switch (this.#state) {
      case "no":
        this.#state = "yes";
        return true;
      case "yes":
        return undefined;
      case "want-no":
        // The peer broke the protocol: our "off" was answered with "on".
        this.#state = this.#opposite ? "yes" : "no";
        this.#opposite = false;
        return undefined;
      case "want-yes":
        if (this.#opposite) {
          this.#state = "want-no";
          this.#opposite = false;
          return false;
        }
        this.#state = "yes";
        return undefined;
    }
  }

  #receiveOff() {
    switch (this.#state) {
      case "no":
        return undefined;
      case "yes":
        this.#state = "no";
        return false;
      case "want-no":
        if (this.#opposite) {
          this.#state = "want-yes";
          this.#opposite = false;
          return true;
        }
        this.#state = "no";
        return undefined;
      case "want-yes":
        this.#state = "no";
        this.#opposite = false;
        return undefined;
    }
  }

  /** For the tests' table: the state, with "+" for a set queue bit. */
  toString() {
    return this.#state + (this.#opposite ? "+" : "");
  }
}
