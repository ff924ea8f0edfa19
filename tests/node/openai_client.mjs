// Uses the official openai client against a corral server; prints what it got as one JSON object.
import OpenAI from "openai";

const [base, agent] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: "unused", maxRetries: 0 });
const messages = [{ role: "user", content: "Say hello." }];

const models = [];
for await (const model of client.models.list()) models.push(model.id);

const whole = await client.chat.completions.create({ model: agent, messages });

let streamed = "";
let finish = null;
const stream = await client.chat.completions.create({
  model: agent,
  messages,
  stream: true,
  stream_options: { include_usage: true },
});
let usage = null;
for await (const chunk of stream) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  finish = chunk.choices[0]?.finish_reason ?? finish;
  usage = chunk.usage ?? usage;
}

const response = await client.responses.create({ model: agent, input: "Say hello." });
const kinds = [];
const events = await client.responses.create({
  model: agent,
  input: "Say hello again.",
  previous_response_id: response.id,
  stream: true,
});
for await (const event of events) kinds.push(event.type);

let refused = null;
try {
  await client.chat.completions.create({ model: "nobody", messages });
} catch (error) {
  refused = { status: error.status, code: error.code, kind: error.constructor.name };
}

console.log(
  JSON.stringify({
    models,
    whole: whole.choices[0],
    streamed,
    finish,
    usage,
    response: { status: response.status, text: response.output_text },
    kinds,
    refused,
  }),
);
