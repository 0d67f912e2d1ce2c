// npm's @a2a-js/sdk of A2A 0.3: `node npm_0_3.mjs PACKAGES URL TRANSPORT GRPC_ADDRESS`, where PACKAGES is the folder that
// holds node_modules.

import { createRequire } from "node:module";
import { carryOut } from "./lines.mjs";

const [packages, url, transport, grpcAddress] = process.argv.slice(2);
const require = createRequire(`${packages}/`);
const { AgentCardResolver, ClientFactory, ClientFactoryOptions } = require("@a2a-js/sdk/client");
const { GrpcTransportFactory } = require("@a2a-js/sdk/client/grpc");

const card = await AgentCardResolver.default.resolve(`${url}/`);
const interfaces = card.additionalInterfaces ?? [];
const told = Object.fromEntries(interfaces.map((each) => [each.transport, each.url]));
// The test breaks connections to this address, and not to the one in the card.
card.additionalInterfaces = interfaces.filter((each) => each.transport !== "GRPC");
card.additionalInterfaces.push({ url: grpcAddress, transport: "GRPC" });

const options = ClientFactoryOptions.createFrom(ClientFactoryOptions.default, {
  transports: [new GrpcTransportFactory()],
  preferredTransports: [transport],
});
const client = await new ClientFactory(options).createFromAgentCard(card);

const said = (order) => ({
  message: {
    kind: "message",
    messageId: order.message,
    contextId: order.context,
    role: "user",
    parts: [{ kind: "text", text: order.text }],
  },
});
const named = (order) => ({ id: order.task });

const textOf = (artifact) => artifact.parts.map((part) => part.text).join("");
const seenTask = (task) => ({
  kind: "task",
  task: task.id,
  context: task.contextId,
  state: task.status.state,
  text: (task.artifacts ?? []).map(textOf).join(""),
});

function seen(event) {
  const of = { task: event.taskId, context: event.contextId };
  switch (event.kind) {
    case "task":
      return seenTask(event);
    case "artifact-update":
      return {
        kind: "artifact",
        ...of,
        text: textOf(event.artifact),
        append: Boolean(event.append),
        last: Boolean(event.lastChunk),
      };
    case "status-update":
      return { kind: "status", ...of, state: event.status.state };
    default:
      throw new Error(`an event of another kind: ${event.kind}`);
  }
}

async function* allSeen(events) {
  for await (const event of events) yield seen(event);
}

await carryOut({
  async *card() {
    yield { kind: "card", name: card.name, streaming: card.capabilities.streaming, urls: told };
  },
  async *send(order) {
    yield seenTask(await client.sendMessage(said(order)));
  },
  stream: (order) => allSeen(client.sendMessageStream(said(order))),
  async *get(order) {
    yield seenTask(await client.getTask(named(order)));
  },
  async *cancel(order) {
    yield seenTask(await client.cancelTask(named(order)));
  },
  resubscribe: (order) => allSeen(client.resubscribeTask(named(order))),
});
