"""The little of EC2's metadata service that packer/files/faasd-boot asks for, tokens included. Prints its port, and serves until killed."""

import http.server

TOKEN = "a-token"


class Metadata(http.server.BaseHTTPRequestHandler):
    def answer(self, status, text):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def do_PUT(self):
        wanted = self.path == "/latest/api/token" and self.headers["x-aws-ec2-metadata-token-ttl-seconds"]
        self.answer(200 if wanted else 400, TOKEN)

    def do_GET(self):
        if self.headers["x-aws-ec2-metadata-token"] != TOKEN:
            self.answer(401, "")
        elif self.path == "/latest/meta-data/local-ipv4":
            self.answer(200, "10.71.16.9")
        else:
            self.answer(404, "")

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Metadata)
print(server.server_port, flush=True)
server.serve_forever()
