// Uses the official ollama client against a corral server; prints what it got as one JSON object.
import { Ollama } from "ollama";

const [base, agent, model] = process.argv.slice(2);
const client = new Ollama({ host: base });
const messages = [{ role: "user", content: "Say hello." }];

const listed = (await client.list()).models.map((each) => each.name);
const shown = await client.show({ model });
const running = (await client.ps()).models.map((each) => each.name);

const whole = await client.chat({ model: agent, messages });

let streamed = "";
let last = null;
for await (const part of await client.chat({ model: agent, messages, stream: true })) {
  streamed += part.message.content;
  last = part;
}

const generated = await client.generate({ model: agent, prompt: "Say hello." });

const prompt =
  "<|start_header_id|>user<|end_header_id|>\n\nSay hello.<|eot_id|>" +
  "<|start_header_id|>assistant<|end_header_id|>\n\n";
let raw = "";
const parts = await client.generate({
  model,
  prompt,
  raw: true,
  stream: true,
  options: { temperature: 0, num_predict: 8 },
});
for await (const part of parts) raw += part.response;

let refused = null;
try {
  await client.chat({ model: "nobody", messages });
} catch (error) {
  refused = { status: error.status_code, error: error.error };
}

console.log(
  JSON.stringify({
    listed,
    running,
    context: shown.model_info["llama.context_length"],
    whole: whole.message.content,
    streamed,
    done: { reason: last.done_reason, tokens: last.eval_count },
    generated: generated.response,
    raw,
    refused,
  }),
);
