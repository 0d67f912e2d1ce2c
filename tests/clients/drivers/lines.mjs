// How a driver talks to the test that runs it: see lines.py, of which this is the same in JavaScript.

import { createInterface } from "node:readline";

const tell = (seen) => process.stdout.write(`${JSON.stringify(seen)}\n`);

async function carryOutOne(order, how) {
  const { number } = order;
  try {
    for await (const seen of how(order)) tell({ number, ...seen });
    tell({ number, kind: "end" });
  } catch (error) {
    // What a client throws is what the test wants to know.
    tell({ number, kind: "error", name: error.constructor.name, text: `${error.message}` });
  }
}

export async function carryOut(orders) {
  tell({ kind: "ready" });
  for await (const line of createInterface({ input: process.stdin })) {
    const order = JSON.parse(line);
    void carryOutOne(order, orders[order.do]);
  }
  process.exit(0);
}
