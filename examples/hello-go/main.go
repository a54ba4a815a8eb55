// Greets somebody. Compiled at deploy; started anew for each call in a sandbox that stays warm.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	event := struct {
		Name string `json:"name"`
	}{Name: "world"}
	// The payload is on stdin too, where it may be larger.
	if err := json.Unmarshal([]byte(os.Getenv("PAYLOAD")), &event); err != nil {
		fmt.Fprintln(os.Stderr, "the payload is not what we expect:", err)
		os.Exit(1)
	}
	greeting := os.Getenv("GREETING")
	if greeting == "" {
		greeting = "Hello"
	}
	// What stands on the last line, as JSON, is the result; anything before it is log.
	fmt.Println("greeting", event.Name)
	_ = json.NewEncoder(os.Stdout).Encode(map[string]string{
		"message":   greeting + ", " + event.Name + "!",
		"runtime":   "go",
		"requestId": os.Getenv("JOB_ID"),
	})
}
