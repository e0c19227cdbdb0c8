// The lab guest's command server: it speaks the protocol of Arrakis' own one, so that a server is tested against what
// Arrakis' guests answer. It runs whatever it is told to; it is for guests of tests alone.
//
//	POST /cmd    {"cmd": "...", "blocking": true}          -> {"output": "...", "error": "..."}
//	POST /files  {"files": [{"path": "...", "content": "..."}]} -> no body
//	GET  /files?paths=A,B                                  -> {"files": [{"path", "content", "error"}]}
//
// Files are uploaded to absolute paths, or under base; they are downloaded from under base alone.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	base    = "/tmp/server_files"
	address = ":4031"
	// The file descriptor of the listening socket in the process that serves.
	inherited = 3
)

type file struct {
	Path    string `json:"path"`
	Content string `json:"content"`
	Error   string `json:"error,omitempty"`
}

type result struct {
	Output string `json:"output,omitempty"`
	Error  string `json:"error,omitempty"`
}

func main() {
	if len(os.Args) < 2 || os.Args[1] != "serve" {
		if err := detach(); err != nil {
			log.Fatal(err)
		}
		return
	}
	socket := os.NewFile(inherited, "listener")
	listener, err := net.FileListener(socket)
	if err != nil {
		log.Fatal(err)
	}
	// The listener has a descriptor of its own, which the commands do not inherit.
	socket.Close()
	routes := http.NewServeMux()
	routes.HandleFunc("/", hello)
	routes.HandleFunc("/cmd", command)
	routes.HandleFunc("/files", files)
	log.Fatal(http.Serve(listener, routes))
}

// Listens, starts the process that serves, and returns: whoever started this can tell that it can be asked now.
func detach() error {
	if err := os.MkdirAll(base, 0o777); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	server := exec.Command(os.Args[0], "serve")
	server.ExtraFiles = []*os.File{socket}
	server.Stderr = os.Stderr
	return server.Start()
}

func hello(answer http.ResponseWriter, request *http.Request) {
	if request.URL.Path != "/" {
		http.NotFound(answer, request)
		return
	}
	write(answer, map[string]string{"msg": "Hello from the lab's command server"})
}

func command(answer http.ResponseWriter, request *http.Request) {
	body := struct {
		Cmd      string `json:"cmd"`
		Blocking bool   `json:"blocking"`
	}{Blocking: true}
	if !read(answer, request, &body) {
		return
	}
	if strings.TrimSpace(body.Cmd) == "" {
		http.Error(answer, "Empty Command", http.StatusBadRequest)
		return
	}
	shell := exec.Command("sh", "-c", body.Cmd)
	shell.Dir = base
	shell.Env = append(os.Environ(), "PATH=/usr/local/bin:/usr/bin:/bin")
	if !body.Blocking {
		if err := shell.Start(); err != nil {
			write(answer, result{Error: err.Error()})
			return
		}
		go func() { _ = shell.Wait() }()
		write(answer, result{Output: fmt.Sprintf("Command '%s' started in background", shell)})
		return
	}
	output, err := shell.CombinedOutput()
	if err != nil {
		write(answer, result{Output: string(output), Error: err.Error()})
		return
	}
	write(answer, result{Output: string(output)})
}

func files(answer http.ResponseWriter, request *http.Request) {
	if request.Method == http.MethodGet {
		download(answer, request)
		return
	}
	var body struct {
		Files []file `json:"files"`
	}
	if !read(answer, request, &body) {
		return
	}
	for _, each := range body.Files {
		if each.Path == "" {
			continue
		}
		place := each.Path
		if !filepath.IsAbs(place) {
			place = filepath.Join(base, place)
		}
		if err := os.WriteFile(place, []byte(each.Content), 0o666); err != nil {
			http.Error(answer, fmt.Sprintf("failed to write file: %s err: %v", place, err), http.StatusInternalServerError)
			return
		}
	}
}

func download(answer http.ResponseWriter, request *http.Request) {
	paths := request.URL.Query().Get("paths")
	if paths == "" {
		http.Error(answer, "Missing 'paths' query parameter", http.StatusBadRequest)
		return
	}
	found := []file{}
	for _, path := range strings.Split(paths, ",") {
		content, err := os.ReadFile(filepath.Join(base, filepath.Clean("/"+path)))
		if err != nil {
			found = append(found, file{Path: path, Error: fmt.Sprintf("Failed to read file: %v", err)})
			continue
		}
		found = append(found, file{Path: path, Content: string(content)})
	}
	write(answer, map[string][]file{"files": found})
}

// Reads the JSON of a POST; answers itself when there is none.
func read(answer http.ResponseWriter, request *http.Request, body any) bool {
	if request.Method != http.MethodPost {
		http.Error(answer, "Method Not Allowed", http.StatusMethodNotAllowed)
		return false
	}
	if err := json.NewDecoder(request.Body).Decode(body); err != nil {
		http.Error(answer, "Invalid JSON body", http.StatusBadRequest)
		return false
	}
	return true
}

func write(answer http.ResponseWriter, body any) {
	answer.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(answer).Encode(body); err != nil {
		log.Print(err)
	}
}
