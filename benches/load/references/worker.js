// The echo as workerd calls it.
export default {
  async fetch(request) {
    const record = { status: "SUCCESS", startType: "WARM", result: await request.json() };
    return new Response(JSON.stringify(record), { headers: { "content-type": "application/json" } });
  },
};
