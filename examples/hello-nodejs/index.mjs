// Greets somebody, and shows what a handler can see of its call.

const greeting = process.env.GREETING ?? 'Hello';
let calls = 0; // lives as long as the sandbox: it counts the warm calls

export const handler = async (event, context) => {
  calls += 1;
  const name = event?.name ?? 'world';
  console.log(`call ${calls} of ${context.functionName}, ${context.getRemainingTimeInMillis()} ms left`);
  return { message: `${greeting}, ${name}!`, runtime: 'nodejs', call: calls, requestId: context.awsRequestId };
};
