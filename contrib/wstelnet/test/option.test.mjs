// H4: option states follow RFC 1143, section 7, for every state and event.

import assert from "node:assert/strict";
import test from "node:test";
import { Option } from "../src/option.js";

// How to bring a fresh option into each state ("+" is the queue bit).
const REACH = {
  "no": [],
  "yes": [["receive", true]],
  "want-yes": [["request", true]],
  "want-yes+": [["request", true], ["request", false]],
  "want-no": [["receive", true], ["request", false]],
  "want-no+": [["receive", true], ["request", false], ["request", true]],
};

// state, event, next state, what is sent
const TABLE = [
  ["no", ["receive", true], "yes", true],
  ["no", ["receive", false], "no", undefined],
  ["no", ["request", true], "want-yes", true],
  ["no", ["request", false], "no", undefined],
  ["yes", ["receive", true], "yes", undefined],
  ["yes", ["receive", false], "no", false],
  ["yes", ["request", true], "yes", undefined],
  ["yes", ["request", false], "want-no", false],
  ["want-no", ["receive", true], "no", undefined],
  ["want-no", ["receive", false], "no", undefined],
  ["want-no", ["request", true], "want-no+", undefined],
  ["want-no", ["request", false], "want-no", undefined],
  ["want-no+", ["receive", true], "yes", undefined],
  ["want-no+", ["receive", false], "want-yes", true],
  ["want-no+", ["request", true], "want-no+", undefined],
  ["want-no+", ["request", false], "want-no", undefined],
  ["want-yes", ["receive", true], "yes", undefined],
  ["want-yes", ["receive", false], "no", undefined],
  ["want-yes", ["request", true], "want-yes", undefined],
  ["want-yes", ["request", false], "want-yes+", undefined],
  ["want-yes+", ["receive", true], "want-no", false],
  ["want-yes+", ["receive", false], "no", undefined],
  ["want-yes+", ["request", true], "want-yes", undefined],
  ["want-yes+", ["request", false], "want-yes+", undefined],
];

test("the table has every state and event once", () => {
  const keys = new Set(TABLE.map(([state, event]) => `${state} ${event}`));
  assert.equal(keys.size, Object.keys(REACH).length * 4);
});

for (const [state, [deed, on], next, sent] of TABLE) {
  test(`${state}, ${deed} ${on ? "on" : "off"}: ${next}`, () => {
    const option = new Option();
    for (const [step, value] of REACH[state]) option[step](value);
    assert.equal(String(option), state);
    assert.equal(option[deed](on), sent);
    assert.equal(String(option), next);
    assert.equal(option.enabled, next === "yes");
  });
}

test("two sides that both ask at once come to rest", () => {
  const [here, there] = [new Option(), new Option()];
  const toThere = [here.request(true)];
  const toHere = [there.request(true)];
  for (let message = 0; toThere.length + toHere.length > 0; message += 1) {
    assert.ok(message < 10, "negotiation does not end");
    const [to, queue, back] = toThere.length > 0 ? [there, toThere, toHere] : [here, toHere, toThere];
    const answer = to.receive(queue.shift());
    if (answer !== undefined) back.push(answer);
  }
  assert.ok(here.enabled && there.enabled);
});
