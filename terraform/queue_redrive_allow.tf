# In a file of its own, which scripts/deploy-test.sh leaves out: the emulator forgets this policy, and Terraform waits for it in vain.

# No other queue may use it as its own.
resource "aws_sqs_queue_redrive_allow_policy" "dead_letters" {
  queue_url = aws_sqs_queue.dead_letters.id
  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [aws_sqs_queue.jobs.arn]
  })
}
