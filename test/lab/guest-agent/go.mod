module guest-agent

go 1.21
