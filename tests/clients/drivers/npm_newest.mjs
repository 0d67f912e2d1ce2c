// npm's @a2a-js/sdk of A2A 1.0: `node npm_newest.mjs PACKAGES URL TRANSPORT GRPC_ADDRESS`, where PACKAGES is the folder
// that holds node_modules.

import { createRequire } from "node:module";
import { carryOut } from "./lines.mjs";

const [packages, url, transport, grpcAddress] = process.argv.slice(2);
const require = createRequire(`${packages}/`);
const { Role, TaskState } = require("@a2a-js/sdk");
const { AgentCardResolver, ClientFactory, ClientFactoryOptions } = require("@a2a-js/sdk/client");
const { GrpcTransportFactory } = require("@a2a-js/sdk/client/grpc");

const card = await AgentCardResolver.default.resolve(`${url}/`);
const told = Object.fromEntries(card.supportedInterfaces.map((each) => [each.protocolBinding, each.url]));
// The test breaks connections to this address, and not to the one in the card.
card.supportedInterfaces = card.supportedInterfaces.filter((each) => each.protocolBinding !== "GRPC");
card.supportedInterfaces.push({ url: grpcAddress, protocolBinding: "GRPC", protocolVersion: "1.0", tenant: "" });

const options = ClientFactoryOptions.createFrom(ClientFactoryOptions.default, {
  transports: [new GrpcTransportFactory()],
  preferredTransports: [transport],
});
const client = await new ClientFactory(options).createFromAgentCard(card);
if (client.transport.protocolName !== transport) throw new Error(`it chose ${client.transport.protocolName}`);

const said = (order) => ({
  tenant: "",
  message: {
    messageId: order.message,
    contextId: order.context,
    taskId: "",
    role: Role.ROLE_USER,
    parts: [{ content: { $case: "text", value: order.text }, metadata: undefined, filename: "", mediaType: "" }],
    metadata: undefined,
    extensions: [],
    referenceTaskIds: [],
  },
  configuration: undefined,
  metadata: undefined,
});
const named = (order) => ({ tenant: "", id: order.task, metadata: undefined });

const textOf = (artifact) => artifact.parts.map((part) => part.content.value).join("");
const stateOf = (status) => TaskState[status.state].replace("TASK_STATE_", "").toLowerCase();
const seenTask = (task) => ({
  kind: "task",
  task: task.id,
  context: task.contextId,
  state: stateOf(task.status),
  text: task.artifacts.map(textOf).join(""),
});

function seen({ payload }) {
  const { $case: kind, value } = payload;
  const of = { task: value.taskId, context: value.contextId };
  switch (kind) {
    case "task":
      return seenTask(value);
    case "artifactUpdate":
      return { kind: "artifact", ...of, text: textOf(value.artifact), append: value.append, last: value.lastChunk };
    case "statusUpdate":
      return { kind: "status", ...of, state: stateOf(value.status) };
    default:
      throw new Error(`an event of another kind: ${kind}`);
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
  async *list(order) {
    const asked = {
      tenant: "",
      contextId: order.context,
      status: TaskState.TASK_STATE_COMPLETED,
      pageSize: order.size,
      pageToken: "",
      historyLength: 1,
      statusTimestampAfter: "2026-01-01T00:00:00Z",
      includeArtifacts: true,
    };
    do {
      const page = await client.listTasks(asked);
      const tasks = page.tasks.map(seenTask);
      yield { kind: "page", tasks, size: page.pageSize, total: page.totalSize };
      asked.pageToken = page.nextPageToken;
    } while (asked.pageToken);
  },
  async *cancel(order) {
    yield seenTask(await client.cancelTask(named(order)));
  },
  resubscribe: (order) => allSeen(client.resubscribeTask(named(order))),
});
